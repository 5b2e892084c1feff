"""The live page: shows the server's current activity in a browser, read-only."""
