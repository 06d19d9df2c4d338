"""A real MLflow server of one process, with users and passwords: `python mlflow_app.py ADDRESS PORT_FILE`."""

import sys
from pathlib import Path

from mlflow.server.auth import create_app
from werkzeug.serving import make_server

if __name__ == "__main__":
    server = make_server(sys.argv[1], 0, create_app(), threaded=True)
    Path(sys.argv[2]).write_text(str(server.server_port))
    server.serve_forever()
