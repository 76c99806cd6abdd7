"""What torch's roads and this toolkit make of every module of the zoo."""
