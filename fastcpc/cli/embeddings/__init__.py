"""Commands for embeddings: arguments of fastcpc-embed and fastcpc-audit."""
