"""What nobody means well with: requests that want to cost more than they may."""
