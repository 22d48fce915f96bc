"""
The scheduler in a simulated world: seeded, in virtual time, with every fault on schedule.

What decides is the very scheduler that runs real jobs; what is simulated is everything that it is told about.
"""
