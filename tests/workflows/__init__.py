"""Tests of app/workflows."""
