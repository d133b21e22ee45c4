"""Studies: what other papers claim of flows, transformer layers and tracks, repeated."""
