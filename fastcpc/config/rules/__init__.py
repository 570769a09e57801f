"""Rules between settings, by topic; ``config.validation`` collects them."""
