"""Processes for bench/throughput.py: a source, a forwarder and a sink, over UDP, bare aioquic and ours."""
