"""A real git server for demos and tests: `git http-backend` behind basic auth, in a cluster or on loopback.

A forge is heavy and a stand-in lies. The operator's promises (one push a run, leases, refused credentials) can
only be believed when git's own server side judged them, so this package serves git's own CGI program and keeps a
log of every reference that a push has moved.
"""
