"""What the tests of infra/terraform share: a copy of its files, Terraform, and where its providers are."""

import json
import os
import pathlib
import shutil
import subprocess

import pytest

FOLDER = pathlib.Path(__file__).parents[2] / 'infra' / 'terraform'
LOCAL = 'terraform {\n  backend "local" {}\n}\n'  # overrides the bucket of the state


class Terraform:
    """Terraform in a copy of infra/terraform, without the registry."""

    def __init__(self, program: str, folder: pathlib.Path, providers: pathlib.Path):
        self._program = program
        self.folder = folder
        folder.mkdir()
        for path in FOLDER.glob('*.tf'):
            shutil.copy(path, folder)
        (folder / 'local_override.tf').write_text(LOCAL)
        (folder / 'rc').write_text(
            f'provider_installation {{\n  filesystem_mirror {{\n    path = "{providers}"\n  }}\n}}\n'
        )

    def __call__(self, *words: str, **values: object) -> subprocess.CompletedProcess:
        """Runs a command; values are variables."""
        given = [
            f'-var={name}={each if isinstance(each, str) else json.dumps(each)}'
            for name, each in values.items()
        ]
        settings = {'TF_CLI_CONFIG_FILE': str(self.folder / 'rc'), 'GOOGLE_OAUTH_ACCESS_TOKEN': 'none'}
        return subprocess.run(
            [self._program, *words, *given],
            cwd=self.folder,
            env=os.environ | settings,
            capture_output=True,
            text=True,
        )


@pytest.fixture(scope='session')
def program(need_program):
    """Terraform itself."""
    return need_program('terraform', 'of that name, from HashiCorp')


@pytest.fixture
def variables(program, tmp_path):
    """Terraform on the variables alone, which need no provider."""
    terraform = Terraform(program, tmp_path / 'terraform', tmp_path)
    for path in terraform.folder.glob('*.tf'):
        if path.name not in ('variables.tf', 'local_override.tf'):
            path.unlink()
    done = terraform('init', '-input=false', '-no-color')
    assert done.returncode == 0, done.stderr
    return terraform


@pytest.fixture(scope='session')
def planner(program, tmp_path_factory):
    """Terraform with its providers, from the folder that `terraform providers mirror` made."""
    providers = pathlib.Path(os.environ.get('DDSP_TERRAFORM_PROVIDERS', '/nowhere'))
    if not providers.is_dir():
        pytest.skip(
            'DDSP_TERRAFORM_PROVIDERS names no folder of providers, which the repository does not hold'
        )
    terraform = Terraform(program, tmp_path_factory.mktemp('plan') / 'terraform', providers)
    done = terraform('init', '-input=false', '-no-color')
    assert done.returncode == 0, done.stderr
    return terraform
