"""What is measured of a contender: one module for each question, all answering with figures by name."""
