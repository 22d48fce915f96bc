"""Service level objectives of parallel batch work: what is promised, kept and left. Pure but for the spec's file."""
