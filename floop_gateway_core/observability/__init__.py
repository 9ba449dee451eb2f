"""What happens to a request, as events that a host can listen to."""
