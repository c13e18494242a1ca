"""Real QUIC connections over simulated paths in virtual time: protocol behaviour without the machine's.

Knows aioquic, the paths of tests.impairment and the controllers under test; no socket, no wall clock. What it
does not show is what a busy processor does to a connection.
"""
