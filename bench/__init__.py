"""The same work, ours and the rivals', side by side: see README.md here."""
