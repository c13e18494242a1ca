"""All that reaches inside aioquic (1.7), and nothing else does: what is read there, and what is replaced.

`reads` are private attributes; `recovery` replaces loss detection, probes, pacing and the queue of datagrams;
`idle_streams` the table of streams. Each has a test in tests/bridges/test_quic_inside_*.py that fails when
the library's inside changes, and pyproject.toml holds the library's minor version until somebody has looked.
"""
