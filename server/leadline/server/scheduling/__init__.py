"""Which job runs where and when, and who learns of it."""
