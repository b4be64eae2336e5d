"""Commands about queues and keys as a whole: pause them, limit them."""
