"""The parts of the scheduler, one for each thing that it decides. All are pure, and none is for use outside."""
