"""Attacks, over real sockets: each shows that its bound holds, and that others do not notice."""
