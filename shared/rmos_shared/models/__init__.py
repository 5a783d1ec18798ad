"""The values that cross a process or reach a file: frozen, and closed to unknown fields."""
