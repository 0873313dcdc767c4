"""Tests of app/api and of what stands under it, over HTTP."""
