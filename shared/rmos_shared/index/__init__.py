"""The index: lists of runs by their fields. A cache of what the store holds, made anew whenever in doubt."""
