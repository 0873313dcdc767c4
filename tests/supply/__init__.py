"""What the project is made of: its bill, its licences, known advisories."""
