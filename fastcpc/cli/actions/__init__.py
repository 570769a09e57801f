"""What the commands do, once their arguments are right; imported by ``fastcpc.cli.lazy`` only."""
