"""People: visitors, who have only a cookie, and staff, who have a role."""
