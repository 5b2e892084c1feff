"""What callers can ask for, whichever protocol they speak."""
