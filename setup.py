"The wheel carries what the kit's commands open: notebooks, people, networks, recordings, results."
from pathlib import Path
from shutil import copytree, ignore_patterns
from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = ('nbs/explorers', 'nbs/lessons', 'nbs/runs', 'nbs/results', 'data/people', 'data/networks', 'data/records', 'data/papers', 'data/grids', 'data/results')

class WithShipped(build_py):
    "Copy what comes with the kit into the package's folder `shipped`; see `sshpe.files.home`."
    def run(self):
        super().run()
        if self.editable_mode: return
        for folder in SHIPPED:
            copytree(folder, Path(self.build_lib)/'sshpe/shipped'/folder, ignore=ignore_patterns('.ipynb_checkpoints'), dirs_exist_ok=True)

setup(cmdclass=dict(build_py=WithShipped))
