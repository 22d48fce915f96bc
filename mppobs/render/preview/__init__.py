"""
Dashboards drawn as Grafana would lay them out, with matplotlib: from their JSON and the answers to their queries.

Values in, pictures out: whoever asks for a picture does the asking of Prometheus.
"""
