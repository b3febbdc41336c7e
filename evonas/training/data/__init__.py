"""Data in memory: `examples` of any kind in batches on a device, their `sources`, their `split`."""
