"""The work of the commands, after their arguments are checked; imported by ``fastcpc.cli.lazy`` only."""
