"""Commands for schedules: those that change them, and those that fire them."""
