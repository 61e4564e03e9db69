"""The outside: forges, trackers, notifiers. One protocol each, one module for every product behind it.

Everything here is I/O that may fail, repeat or be answered late. It raises errors.Transient where waiting helps and
errors.Permanent where a person must act, decides nothing, and never puts a token into an error, a log or a status.
"""
