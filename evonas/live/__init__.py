"""The live view: runs in a browser while they are being written, read-only, on this machine.

`evonas serve` starts it. Needs starlette, uvicorn, plotly and Jinja2: `pip install 'evonas[live]'`.
"""
