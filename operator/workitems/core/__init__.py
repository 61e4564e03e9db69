"""The pure part: facts in, plan out. No I/O, no clock, no framework; import-linter proves it.

`decide.decide(facts)` is the only door; the other modules are its vocabulary.
"""
