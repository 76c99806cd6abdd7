"""What a newcomer copies: the commands that the docs, the README and every export print."""
