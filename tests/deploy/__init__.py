"""What is shipped: the image, the compositions of services, the demonstration."""
