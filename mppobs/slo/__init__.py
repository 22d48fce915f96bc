"""Service level objectives of parallel batch work: what is promised, what was kept, what is left. Pure but for the spec's file."""
