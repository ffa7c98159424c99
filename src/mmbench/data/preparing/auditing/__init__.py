"""What an audit looks for, one concern a file; ``mmbench.data.preparing.audit`` puts it together."""
