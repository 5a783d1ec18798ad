"""What happens, typed once; logs, and later metrics and traces, are sinks of it."""
