"""What a release and its images are made with; the scripts run in .github/workflows/release.yml."""
