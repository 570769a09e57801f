"""The console commands: X.py has the arguments of fastcpc-X, actions/X.py its work."""
