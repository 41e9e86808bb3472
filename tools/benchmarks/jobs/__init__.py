"""What is done in the process that is measured. Each job returns its figures by name, with their units."""
