# gunicorn's settings for environ.py. It ignores those it does not know.

# From version 22 on gunicorn drops headers with an underscore in their name. Before, and with this,
# it joins them with their namesakes.
header_map = "dangerous"
# A line for each request, in order.
accesslog = "-"
access_log_format = "%(U)s"
loglevel = "critical"
