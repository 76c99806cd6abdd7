"""The folder that is published: staging, manifest, hashing, reading, inspection."""
