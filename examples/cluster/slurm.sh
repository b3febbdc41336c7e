#!/bin/bash
#SBATCH --job-name evonas
#SBATCH --nodes 2
#SBATCH --ntasks-per-node 1
#SBATCH --cpus-per-task 4
#SBATCH --time 01:00:00
#SBATCH --signal B:TERM@60
#
# A search on several machines: a Ray cluster inside of a Slurm allocation.
#
#     sbatch examples/cluster/slurm.sh                          # from the root of the clone
#     sbatch --nodes 8 --gpus-per-node 4 examples/cluster/slurm.sh --gpus 0.25
#
# What stands behind the script's name goes to examples/cluster/search.py. All machines need the same
# Python environment (on a shared disk, say), active where sbatch is called. A minute before the time
# is over Slurm sends SIGTERM: the search saves and ends, and goes on when it is submitted again.
set -euo pipefail

cpus=${SLURM_CPUS_PER_TASK:-1}
port=$((20000 + SLURM_JOB_ID % 20000)) # of its own, where jobs share a machine
mapfile -t machines < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${machines[0]}
# The cluster answers to this job alone (from Ray 2.52 on): who has no token is turned away.
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN

# on MACHINE ARGUMENTS...: a part of the Ray cluster on one machine, in the background.
on() {
    local machine=$1
    shift
    srun --overlap --nodes 1 --ntasks 1 --nodelist "$machine" \
        ray start "$@" --num-cpus "$cpus" --disable-usage-stats --block &
}

on "$head" --head --port "$port"
until said=$(timeout 10 ray status --address "$head:$port" 2>&1); do
    if ((SECONDS > 120)) || ! kill -0 $! 2>/dev/null; then
        printf 'the head of the Ray cluster, %s, does not answer:\n%s\n' "$head:$port" "$said" >&2
        exit 1
    fi
    sleep 1
done
for machine in "${machines[@]:1}"; do
    on "$machine" --address "$head:$port"
done

# In place of this shell, so that the signal reaches it. Machines that come later are used.
exec python examples/cluster/search.py --ray "$head:$port" "$@"
