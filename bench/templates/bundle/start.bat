@echo off
rem The first start installs from this folder, the next ones open JupyterLab. "start.bat --check" tries everything.
pushd "%~dp0"
py -@MINOR@ -c "" >nul 2>nul
if not errorlevel 1 (
  py -@MINOR@ start.py %*
  goto end
)
python -c "" >nul 2>nul
if not errorlevel 1 (
  python start.py %*
  goto end
)
echo No Python was found. Install Python @MINOR@ for Windows (64 bit) and start again.
cmd /c exit 1
:end
if errorlevel 1 pause
popd
