"""What Grafana shows and Prometheus watches; `python -m dashboards` writes Grafana's JSON anew.

One module a dashboard, made of `panels.py` and put together by `board.py`. The rules of Prometheus
are in `prometheus/rules`, in its own language.
"""
