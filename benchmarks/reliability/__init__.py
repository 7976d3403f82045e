"""What happens when things go wrong, tried many times: `make reliability` writes docs/reliability.md and its rows."""
