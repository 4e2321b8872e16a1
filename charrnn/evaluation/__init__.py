"""A text becomes nats: static, dynamic, scoring."""
