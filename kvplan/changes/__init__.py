"""What could be changed about a question: to make it fit, and what the memory left could buy."""
